"""Other packages' interfaces on jaxglmm's engines, one folder a package."""
