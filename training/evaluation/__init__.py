"""Measuring trained models against true orbits and true meshes."""
