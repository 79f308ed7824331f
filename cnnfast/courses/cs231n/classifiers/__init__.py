"""The networks of CS231n's assignment 2 that cnnfast has whole."""
