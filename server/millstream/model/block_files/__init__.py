"""The prefix cache on disk: blocks of the KV cache in files, for engines that start later."""
