"""Make views that disagree agree: optical flow and tones towards a fit of all of them."""
