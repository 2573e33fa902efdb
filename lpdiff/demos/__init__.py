"""Programs that show lpdiff at work, on its public interface alone."""
