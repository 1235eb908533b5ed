"""Other quantisers, applied to the same networks and training for comparison with ours."""
