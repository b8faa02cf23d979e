"""Training data, recipes and scripts; they import `hi3d_core` and are imported by nothing."""
