"""Attribution graphs of single prompts."""
