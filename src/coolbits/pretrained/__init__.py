"""Models that others trained, as the rest of the laboratory reads them."""
