"""Letters to phones, trained with the value of an alignment as the loss: ``lpdiff demo align``."""
