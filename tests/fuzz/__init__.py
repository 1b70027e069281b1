"""Files that chance has changed, opened by the thousand: no crash, no hang, no lie."""
