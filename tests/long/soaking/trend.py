"""Whether a figure grows: lines through samples."""


def line(points):
    """Slope and mean of the least-squares line through (x, y)."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return slope, mean_y


def growth(points):
    """What the line gains from the first x to the last; none for fewer than 5 points."""
    if len(points) < 5:
        return None
    slope, mean = line(points)
    xs = [x for x, _ in points]
    return {"gain": slope * (max(xs) - min(xs)), "per_minute": slope * 60, "mean": mean, "samples": len(points),
            "least": min(y for _, y in points), "most": max(y for _, y in points)}
