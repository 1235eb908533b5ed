"""Packaging of Tutelage. What is tested is pinned in constraints.txt; here stand the ranges."""

from setuptools import find_packages, setup

# The board keeps its own numpy and OpenCV (PYNQ's packages), so that only numpy is asked for here.
BOARD = ["numpy>=1.21", "psutil>=5.9", "tomli>=2.0; python_version < '3.11'"]
# The live page and the live table on the terminal; the application runs without them.
SHOW = ["starlette>=0.40", "uvicorn>=0.30", "rich>=13.0"]
# The emulation: .xmodel files, the float32 graphs of the fast engine, images and videos.
PC = [
    *SHOW,
    "opencv-python-headless>=4.8",
    "protobuf>=5.26",
    "onnx>=1.16",
    "onnxruntime>=1.18",
    "openvino>=2025.0",
]
# 2.13 is what training is tested with; its numerics (and so the seeds' results) are pinned there.
HOST = [
    *PC,
    "torch>=2.13",
    "accelerate>=1.5",
    "safetensors>=0.5",
    "typer>=0.19",
    "tensorboard>=2.18",
    "matplotlib>=3.9",
]
# Run beside our own quantiser, for comparison.
PEERS = ["brevitas>=0.13.4"]
# What host/published_networks.py is compared with, layer by layer.
ZOO = ["torchvision>=0.23", "timm>=1.0"]
TEST = [
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "playwright>=1.45",
    "nbclient>=0.10",
    "ipykernel>=6.29",
    "pandas>=2.0",
]
LINT = ["ruff>=0.15", "mypy>=1.15", "types-protobuf"]

setup(
    name="tutelage",
    version="0.1.0",
    description="Teach a DenseNet to live in 8 bits, and put it to work on a ZCU104's DPU",
    packages=find_packages(include=["app*", "board*", "dpu*", "host*"]),
    package_data={
        "board": ["profiles/*.toml"],
        "app": [
            "demo/*",
            "demo/images/*/*.png",
            "web/static/*",
            "web/static/uplot/*",
        ],
        "dpu": ["fitted/*.toml"],
        "host": ["study.toml", "zcu104_published.csv"],
    },
    python_requires=">=3.10",
    install_requires=BOARD,
    extras_require={
        "show": SHOW,
        "pc": PC,
        "host": HOST,
        "peers": PEERS,
        "zoo": ZOO,
        "test": TEST,
        "lint": LINT,
    },
)
