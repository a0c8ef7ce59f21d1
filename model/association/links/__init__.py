"""Learned links: which queries of different clips are one object, learned from where masks lie and what they cover.

`tokens` and `relations` describe queries and pairs of them, `network` gives each pair the log-odds that it is one
object, `clustering` and `order` turn these into one permutation per clip, for whole videos or clip by clip.
"""

from model.association.links.config import LinksConfig
from model.association.links.network import LinkNetwork, LinkNetworkConfig, Links
from model.association.links.order import LinkedInTime, link_order, reordered_video

__all__ = ["LinkNetwork", "LinkNetworkConfig", "LinkedInTime", "Links", "LinksConfig", "link_order", "reordered_video"]
