// The DPU of the ZCU104's overlay: DPUCZDX8G, B4096 (two of them, see the Makefile), 300 MHz.
//
// NEVER BUILT WITH THIS FILE.
// The options are those of AMD's prebuilt overlay. The names of the macros are those of dpu_conf.vh in
// AMD's DPUCZDX8G reference design, from memory: compare this file with the one in the reference
// design (the Makefile shows the differences) before hours of building.

// Architecture: 8 pixels x 16 input channels x 16 output channels x 2 operations = 4096 per cycle.
`define B4096

// URAM enabled: image and weight buffers in UltraRAM.
`define URAM_ENABLE
`ifdef URAM_ENABLE
    // Unsure: blocks for image, weights and bias of a B4096, from memory.
    `define def_UBANK_IMG_N 5
    `define def_UBANK_WGT_N 17
    `define def_UBANK_BIAS  1
`endif

// No distributed RAM in place of block RAM. Unsure: the prebuilt overlay's choice is not documented.
`define DRAM_DISABLE

// Low RAM usage: small buffers.
`define RAM_USAGE_LOW

// Channel augmentation on: layers with few input channels fill the array's lanes.
`define CHANNEL_AUGMENTATION_ENABLE

// Activations of convolutions: ReLU, LeakyReLU and ReLU6.
`define CONV_RELU_LEAKYRELU_RELU6

// Unsure whether this release has the macros of the next five lines, and under these names. They set
// the ALU (depthwise convolutions, pools) to its defaults, which the compiler's arch.json assumes.
`define ALU_PARALLEL_DEFAULT
`define ALU_RELU_RELU6
`define DWCV_ENABLE
`define POOL_AVG_ENABLE
`define ELEW_MULT_DISABLE

// Unsure: softmax and argmax are not computed in the FPGA.
`define SAVE_ARGMAX_DISABLE

// DSP48 usage high: multipliers and accumulators in DSP slices.
`define DSP48_USAGE_HIGH

// Low-power mode off.
`define LOWPOWER_DISABLE

// Zynq UltraScale+ MPSoC.
`define MPSOC
