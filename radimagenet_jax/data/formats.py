"""How image files are told apart: by the ends of their names, and by how they begin."""

SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*")
BIG_TIFF = (b"II+\0", b"MM\0+")
BMP = b"BM"
GIF = b"GIF8"
