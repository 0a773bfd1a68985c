"""Trained attention, turned into attention of another kind: swapped, then taught by the model that it was.

convert_attention(model, batches, kind="imhsa", *, steps, ...) -> Converted
of_run.convert_run(folder, kind="imhsa", ...) -> Conversion       with accuracy kept, controls of equal time, costs
of_pictures.convert_on_pictures(model, files, kind="imhsa", ...) -> Conversion        without labels
"""

from crosshead.conversion.distilling import Converted, convert_attention

__all__ = ["Converted", "convert_attention"]
