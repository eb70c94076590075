"""Side-by-side benchmark of Postrail and its peers. Run it as ``python -m bench`` from the repository root."""
