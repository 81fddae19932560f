"""Programs that run in a process of their own. They stand alone: no torch, no import of portrt."""
