"""A real RTSP server for tests, run by the system's Python: `python3 rtsp_server.py PORT`.

GStreamer's RTSP server with a test picture as motion JPEG. Needs Debian's python3-gi,
gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good. Prints a line once it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURE = (
    "( videotestsrc is-live=true pattern=smpte "
    "! video/x-raw,format=I420,width=160,height=120,framerate=25/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )"
)

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(PICTURE)
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("listens", flush=True)
GLib.MainLoop().run()
