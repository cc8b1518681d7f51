"""Computing cloaks: the objective, the targets and the solver."""
