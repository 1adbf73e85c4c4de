"""Text Generation Inference's bodies, put as the completion request that all routes share."""
