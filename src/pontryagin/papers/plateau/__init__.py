"""How many iterations the sine needs to leave the plateau beside its saddle."""
