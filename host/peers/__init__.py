"""Other quantisers under the same networks and the same training, to compare ours with."""
