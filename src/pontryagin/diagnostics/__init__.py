"""What a run or a trained network is like, read from records and models: nothing here changes anything."""
