"""The 124 classes of VIPSeg, with VSPW's names and ids. 58 are things. The colours are those of VIPSeg's converter.

Source: panoVIPSeg_categories.json of VIPSeg-Dataset; a copy of the data set may bring its own file of that name.
"""

from __future__ import annotations

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.classes_vspw import NAMES

_THINGS = {2, 4, 8, 10, 41, 43, 44, *range(46, 53), *range(54, 57), *range(60, 66), 72, 74, *range(76, 80),
           *range(82, 93), *range(95, 98), *range(99, 103), *range(106, 110), *range(114, 119), 122, 123}
_COLORS = bytes.fromhex(       # red, green, blue of each class; stuff has exactly this colour in panomasksRGB
    "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652 "
    "8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0 "
    "ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff "
    "8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff "
    "00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff "
    "ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff "
    "00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 "
    "5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ")

TABLE = ClassTable("vipseg", tuple(ClassInfo(id, name, id in _THINGS, tuple(_COLORS[3 * id:3 * id + 3]))
                                   for id, name in enumerate(NAMES)))
