"""The file: manifest, weights image, and how they are put into and read from a torch.export program."""
