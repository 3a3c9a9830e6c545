"""Who asks: a bearer token, or, for a page in a browser, a cookie that has it."""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

Shop: TypeAlias = Callable[..., Awaitable[str]]
"""A dependency that gives the shop of whoever asks."""

COOKIE = "token"
DAY = 24 * 3600  # seconds

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Cookie = Annotated[str | None, Depends(APIKeyCookie(name=COOKIE, auto_error=False))]


def shop_by(tokens: Mapping[str, str]) -> Shop:
    """Knows shops by these tokens; 401 for all others."""
    # Looked up by its hash: how long that takes says nothing about the tokens there are.
    shops = {_hashed(token): shop for token, shop in tokens.items()}

    async def shop_of(bearer: Bearer, cookie: Cookie) -> str:
        token = cookie if bearer is None else bearer.credentials
        shop = shops.get(_hashed(token or ""))
        if shop is None:
            raise HTTPException(401, "give a token that we know", {"WWW-Authenticate": "Bearer"})
        return shop

    return shop_of


def login_router(shop_of: Shop) -> APIRouter:
    """An EventSource sends no headers of ours, but cookies: so a page gives its token once, and is given one."""
    router = APIRouter(tags=["login"])

    @router.post("/login", status_code=204, dependencies=[Depends(shop_of)])
    async def login(bearer: Bearer, request: Request, response: Response) -> None:
        if bearer is not None:
            is_secure = request.url.scheme == "https"
            # Strict: other sites cannot make a browser send it, so there is nothing to forge.
            response.set_cookie(COOKIE, bearer.credentials, DAY, secure=is_secure, httponly=True, samesite="strict")

    return router


def _hashed(token: str) -> bytes:
    return sha256(token.encode()).digest()
