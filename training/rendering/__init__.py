"""How the orbits of a dataset are drawn, kept and spread over processes and machines."""
