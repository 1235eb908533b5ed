"""Sources of frames: files, cameras, streams, load patterns."""
