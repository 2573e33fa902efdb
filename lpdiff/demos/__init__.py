"""Programs that show lpdiff at work, on its public interface alone: ``lpdiff demo --help``."""

from importlib.util import find_spec

for _name in ("sklearn", "matplotlib", "tqdm"):
    if find_spec(_name) is None:
        raise ImportError(f'{_name} is missing: the demos need pip install "lpdiff[demo]"')
