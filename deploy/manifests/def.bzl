"""What is given to a cluster: charts, and files that name a payload by digest."""

load("//deploy/manifests/private:helm_chart.bzl", _helm_chart = "helm_chart")
load("//deploy/manifests/private:payload_manifest.bzl", _payload_manifest = "payload_manifest")
load("//deploy/manifests/private:shims.bzl", "platform_shims", _shims_names = "shims_names", _shims_yaml = "shims_yaml")
load("//stack:platforms.bzl", "PLATFORMS", "missing_components")

helm_chart = _helm_chart
payload_manifest = _payload_manifest
shims_names = _shims_names
shims_yaml = _shims_yaml

# Platforms whose payload can be built.
BUILDABLE = [platform for platform in PLATFORMS if not missing_components(platform)]

def platform_manifests(template, **kwargs):
    """Fills a template for the payload of each platform.

    There is one target for each, by the platform's name. Where nothing builds one
    of its components yet, it says so, as the payload does, and is left out of
    patterns.

    Args:
      template: label of the template.
      **kwargs: what every rule takes.
    """
    for platform, classes in PLATFORMS.items():
        payload_manifest(
            name = platform,
            payload = "//payload:" + platform,
            shims = platform_shims(classes),
            tags = [] if platform in BUILDABLE else ["manual"],
            template = template,
            **kwargs
        )
