"""The file: manifest, weights image, and how both get into and out of a torch.export program."""
