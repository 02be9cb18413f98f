"""Images and charts for people: overlays, SVG charts, safe markup, numbers, thumbnails. No torch."""
