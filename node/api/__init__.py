"""What is asked of the mesh, as records: the same for the command line, the control API and the Python client."""
