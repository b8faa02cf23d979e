"""What toy objects are made of: solids, paints, and designs that put them together."""
