"""Features of data into the store, in this process or on a cluster."""

from headstart.base.context import RunContext
from headstart.base.errors import SpecError
from headstart.data.dataset import Dataset
from headstart.features.loading import load_for_features
from headstart.features.on_ray import extract_on_ray
from headstart.features.slices import Extracted, extract_slices
from headstart.modalities.sources import usual_backbone
from headstart.models.specs import FeatureExtraction


def extract_to_store(
    data: Dataset,
    spec: FeatureExtraction,
    backbone: str,
    weights: str,
    context: RunContext,
    *,
    on_ray: bool = False,
    address: str = "",
) -> Extracted:
    """Compute the features of every row into the store, a slice at a time, and return counts.

    `train` on the same data, with the same backbone and preparation, then finds them. on_ray,
    address: as in `features.on_ray.extract_on_ray`. Raises SpecError for an address without on_ray.
    """
    if address and not on_ray:
        raise SpecError("--address names a Ray cluster: add --on-ray.")
    name, why = usual_backbone(backbone, data)
    if why:
        context.listener.stage("backbone", why)
    network = spec.prepared(load_for_features(name, weights, context.runtime, spec.size))
    if on_ray:
        return extract_on_ray(network, data, context, address)
    return extract_slices(network, data, context)
