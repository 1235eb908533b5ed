"""The plain convolutional families of timm, with one network of each.

A plain network has convolutions, batch norms, pools, activations and, at most, channel attention.
Families with spatial attention or token mixers are excluded, and so are those with LayerNorm,
GroupNorm or global response normalisation (ConvNeXt, RDNet, PoolFormer, BiT, ...).
"""

TIMM_NETWORKS = (
    "resnet18", "resnet26d", "wide_resnet50_2", "resnext50_32x4d", "seresnet33ts", "ecaresnet26t",
    "resnetblur50", "resnetv2_50", "nf_resnet50", "legacy_seresnet18", "res2net50_26w_4s",
    "resnest14d", "skresnet18", "tresnet_m", "resnetrs50", "regnetx_002", "regnety_002",
    "regnetz_b16", "gernet_s", "repvgg_a0", "mobileone_s0", "vgg11_bn", "densenet121", "dla34",
    "dpn68", "hrnet_w18_small", "hgnet_tiny", "hgnetv2_b0", "vovnet39a", "ese_vovnet19b_dw",
    "selecsls42", "cspresnet50", "cspdarknet53", "cs3darknet_s", "cspnext_s", "inception_v3",
    "inception_v4", "inception_resnet_v2", "legacy_xception", "xception41", "nasnetalarge",
    "pnasnet5large", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100",
    "mobilenetv4_conv_small", "mnasnet_100", "semnasnet_075", "fbnetc_100", "fbnetv3_b",
    "spnasnet_100", "mixnet_s", "efficientnet_lite0", "efficientnet_b0", "efficientnet_es",
    "efficientnetv2_rw_t", "tf_efficientnet_b0", "tinynet_e", "lcnet_050", "lcnetv2_small",
    "hardcorenas_a", "ghostnet_100", "ghostnetv2_100", "repghostnet_050", "rexnet_100",
    "fasternet_t0", "starnet_s1", "repvit_m0_9", "inception_next_tiny", "convmixer_1024_20_ks9_p14",
)  # fmt: skip
