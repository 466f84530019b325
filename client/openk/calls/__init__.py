"""The operations of each namespace, as functions: parameters in, an Operation out."""
