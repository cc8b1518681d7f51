"""The page that shows people what a run has done."""
