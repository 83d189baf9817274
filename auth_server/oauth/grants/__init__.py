"""One file a grant type; a grant holds only what differs from the others."""
