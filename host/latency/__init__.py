"""The latency model's fit to AMD's published speed."""
