"""The operations: signature, checks, torch.library schema, fake kernel and autograd formula of each."""
