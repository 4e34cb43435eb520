"""What runs a mesh in earnest: servers, nodes, permissions, units, images. See README.md here."""
