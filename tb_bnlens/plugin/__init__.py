"""The TensorBoard side: ``loader`` is the entry point, ``plugin`` the routes."""
