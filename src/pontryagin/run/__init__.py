"""Training of any model by any method: stopped, resumed and looked at."""
