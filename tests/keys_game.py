"""A small pygame program to be captured: a square that two keys move; Q makes all of it blue.

python -m tests.keys_game SECONDS
"""

import sys
import time

import pygame

SIZE = (160, 96)


def main(seconds: float) -> None:
    pygame.display.init()
    window = pygame.display.set_mode(SIZE)
    pygame.display.set_caption("Square and keys")
    x, ends = 72, time.monotonic() + seconds
    while time.monotonic() < ends:
        pygame.event.pump()
        held = pygame.key.get_pressed()
        x = min(144, max(0, x + held[pygame.K_RIGHT] - held[pygame.K_LEFT]))
        window.fill((40, 60, 220) if held[pygame.K_q] else (90, 90, 90))
        pygame.draw.rect(window, (20, 220, 30), (x, 40, 16, 16))
        pygame.display.flip()
        time.sleep(0.03)


if __name__ == "__main__":
    main(float(sys.argv[1]))
