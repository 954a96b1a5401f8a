# hepo_isaac on NVIDIA Isaac Gym Preview 4 (PhysX), which needs Python 3.8.
# How to build and run it: README.md. Volumes, users, digests, what is proven: docs/docker.md.
#
# NVIDIA's licence does not let us pass Isaac Gym on: you download it, the image takes it from docker/, and the image,
# which then contains it, must not be pushed to a public registry.
FROM ubuntu:focal-20250404 AS isaacgym
# The [z] makes the package optional to COPY, so that the script can say what to do where it is missing.
COPY docker/unpack_isaacgym.sh docker/IsaacGym_Preview_4_Package.tar.g[z] /package/
RUN sh /package/unpack_isaacgym.sh /package /opt

FROM ubuntu:focal-20250404

# g++ and python3.8-dev stay: gymtorch is compiled against torch when it is first imported, which needs the driver and
# so cannot happen here. python3.8-dev also brings libpython3.8.so to where the loader looks. The X and Vulkan libraries
# are those that NVIDIA's library is linked with; no display is needed. No
# versions, as the release gets no more updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        g++ libegl1 libgl1 libvulkan1 libx11-6 libxcursor1 libxi6 libxinerama1 libxrandr2 \
        python3.8 python3.8-dev python3.8-venv \
    && rm -rf /var/lib/apt/lists/*

# Older container toolkits do not mount the files that tell the loaders about NVIDIA's EGL and Vulkan.
RUN mkdir -p /usr/share/glvnd/egl_vendor.d /usr/share/vulkan/icd.d \
    && printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}\n' \
        > /usr/share/glvnd/egl_vendor.d/10_nvidia.json \
    && printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.2.0"}}\n' \
        > /usr/share/vulkan/icd.d/nvidia_icd.json

# Any user may run the image (docker run --user), so what a run writes to is open to all.
RUN useradd --uid 1000 --no-create-home --home-dir /cache/home hepo \
    && mkdir --mode=1777 /workspace /workspace/runs /cache /cache/home

ENV PATH=/opt/hepo/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics \
    MUJOCO_GL=egl \
    PYTHONUNBUFFERED=1 \
    LANG=C.UTF-8 \
    USER=hepo \
    HOME=/cache/home \
    XDG_CACHE_HOME=/cache \
    TORCH_EXTENSIONS_DIR=/cache/torch_extensions \
    CUDA_CACHE_PATH=/cache/cuda

# Other people's packages in a layer of their own (gigabytes), which a change of ours leaves alone.
WORKDIR /opt/src
COPY pyproject.toml constraints-py38.txt README.md LICENSE ./
COPY hepo_isaac/__init__.py hepo_isaac/
RUN python3.8 -m venv /opt/hepo \
    && pip install --no-cache-dir -c constraints-py38.txt pip \
    && PIP_CONSTRAINT=constraints-py38.txt pip install --no-cache-dir -c constraints-py38.txt '.[isaacgym,report,video,wandb]' \
    && pip uninstall --yes hepo-isaac

# Without its dependencies: it asks for torch 1.8. In place: an installed copy would lack the sources of gymtorch.
COPY --from=isaacgym /opt/isaacgym /opt/isaacgym
RUN pip install --no-cache-dir --no-deps --no-build-isolation -c constraints-py38.txt -e /opt/isaacgym/python

COPY hepo_isaac hepo_isaac
COPY tasks tasks
COPY cfg cfg
RUN PIP_CONSTRAINT=constraints-py38.txt pip install --no-cache-dir --no-deps -c constraints-py38.txt .

# What is in here, as CycloneDX; the tool that asks does not stay. apt's packages: dpkg --list.
RUN python3.8 -m venv /opt/sbom-tool \
    && /opt/sbom-tool/bin/pip install --no-cache-dir -c constraints-py38.txt pip \
    && /opt/sbom-tool/bin/pip install --no-cache-dir -c constraints-py38.txt cyclonedx-bom \
    && /opt/sbom-tool/bin/cyclonedx-py environment --output-reproducible --output-file /opt/hepo/sbom.cdx.json /opt/hepo/bin/python \
    && rm -rf /opt/sbom-tool

COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/entrypoint
WORKDIR /workspace
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/entrypoint"]
