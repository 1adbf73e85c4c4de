"""The Conversations API: items that outlive the responses that made them."""
