"""Made-up item titles in several languages, each of a known group, written as shops of the language write them."""

from __future__ import annotations

import numpy as np
import polars as pl

WORDS = {  # a group a line; after them what titles of all groups may begin with
    "english": (
        "matcha sencha oolong teabags darjeeling chai jasmine teapot",
        "sneakers loafers boots sandals slippers insoles laces heels",
        "lamp chandelier sconce bulb lantern nightlight lampshade torch",
        "novel dictionary comic textbook picturebook poems biography essays",
        "charger cable earphones powerbank tripod speaker phonecase adapter",
        "catfood dogfood litter petbed leash scratcher catnip kennel",
        "new genuine household large portable premium black white red kids boxed cheap",
    ),
    "chinese": (
        "绿茶 红茶 乌龙茶 茶叶 普洱 龙井 茉莉花茶 茶具",
        "运动鞋 跑步鞋 皮鞋 凉鞋 拖鞋 靴子 鞋垫 篮球鞋",
        "台灯 吊灯 壁灯 落地灯 灯泡 吸顶灯 夜灯 灯罩",
        "小说 词典 漫画书 教材 绘本 诗集 传记 散文集",
        "手机壳 充电器 数据线 耳机 钢化膜 移动电源 手机支架 蓝牙音箱",
        "猫粮 狗粮 猫砂 宠物窝 牵引绳 猫抓板 逗猫棒 宠物零食",
        "新款 正品 家用 大容量 便携 高级 黑色 白色 红色 儿童 礼盒装 特价",
    ),
    "japanese": (
        "緑茶 紅茶 ウーロン茶 茶葉 抹茶 ほうじ茶 麦茶 ティーバッグ",
        "スニーカー ランニングシューズ 革靴 サンダル スリッパ ブーツ 中敷き 靴ひも",
        "デスクライト ペンダントライト 間接照明 シーリングライト 電球 常夜灯 ランプシェード 懐中電灯",
        "小説 辞書 漫画 教科書 絵本 詩集 伝記 文庫本",
        "スマホケース 充電器 ケーブル イヤホン 保護フィルム モバイルバッテリー スマホスタンド スピーカー",
        "キャットフード ドッグフード 猫砂 ペットベッド リード 爪とぎ 猫じゃらし おやつ",
        "新品 の 用 大容量 軽量 高級 ブラック ホワイト 赤い かわいい セット お得な",
    ),
    "thai": (
        "ชาเขียว ชาดำ ชาอู่หลง ใบชา ชามะลิ กาน้ำชา ชานม ถุงชา",
        "รองเท้าผ้าใบ รองเท้าวิ่ง รองเท้าหนัง รองเท้าแตะ บูท แผ่นรองเท้า เชือกรองเท้า ส้นสูง",
        "โคมไฟตั้งโต๊ะ โคมระย้า ไฟติดผนัง หลอดไฟ โคมไฟเพดาน ไฟฉาย โป๊ะโคม ไฟกลางคืน",
        "นวนิยาย พจนานุกรม หนังสือการ์ตูน ตำราเรียน หนังสือภาพ รวมบทกวี ชีวประวัติ เรื่องสั้น",
        "เคสมือถือ ที่ชาร์จ สายเคเบิล หูฟัง ฟิล์มกันรอย แบตเตอรี่สำรอง ขาตั้งมือถือ ลำโพงบลูทูธ",
        "อาหารแมว อาหารสุนัข ทรายแมว ที่นอนสัตว์เลี้ยง สายจูง ที่ลับเล็บแมว ไม้ล่อแมว ขนมสุนัข",
        "ใหม่ ของแท้ สำหรับ ขนาดใหญ่ พกพา คุณภาพดี สีดำ สีขาว สีแดง เด็ก ชุดของขวัญ ราคาถูก",
    ),
    "korean": (
        "녹차 홍차 우롱차 찻잎 보이차 말차 보리차 티백",
        "운동화 러닝화 구두 샌들 슬리퍼 부츠 깔창 신발끈",
        "스탠드 펜던트등 벽등 조명 전구 천장등 수면등 램프",
        "소설 사전 만화책 교과서 그림책 시집 전기문 수필집",
        "휴대폰케이스 충전기 케이블 이어폰 보호필름 보조배터리 거치대 스피커",
        "고양이사료 강아지사료 모래 방석 목줄 스크래처 낚싯대 간식",
        "새 정품 가정용 대용량 휴대용 고급 검정 흰색 빨간 어린이 선물세트 할인",
    ),
}
PARTICLES = ("", "를", "와", "은", "의", "까지", "에서", "으로")  # glued to Korean nouns


def titles(language: str, n: int = 300, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """An item table of n titles, each two words for all groups and two of its own; and the group of each [n]."""
    *groups, common = (line.split() for line in WORDS[language])
    rng = np.random.default_rng(seed)
    group = rng.integers(len(groups), size=n)
    texts = []
    for own in group:
        words = [*rng.choice(common, 2, replace=False), *rng.choice(groups[own], 2, replace=False)]
        if language == "korean":
            words = [word + rng.choice(PARTICLES) for word in words]
        texts.append((" " if language in ("english", "korean") else "").join(words))
    return pl.DataFrame({"item_id": [f"{language} {i}" for i in range(n)], "text": texts}), group


def neighbour_precision(vectors: np.ndarray, group: np.ndarray, k: int = 10) -> float:
    """Which part of the k nearest other rows are of the same group; a row with the zero vector has none near."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    near = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return float(((group[near] == group[:, None]) & vectors.any(axis=1, keepdims=True)).mean())
