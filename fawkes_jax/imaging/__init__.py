"""Pure image mathematics: geometry, structural similarity, views."""
